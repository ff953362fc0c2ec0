"""Images, how they become a model's input, and their labels. No torch in here."""
