"""Are the custom nodes where they belong, and do they load? (No checks yet.)"""
