"""Are the model files whole, and in the right folders? (No checks yet.)"""
