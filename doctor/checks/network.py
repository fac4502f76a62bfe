"""Can what is needed be fetched from here? (No checks yet.)"""
