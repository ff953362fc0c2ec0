"""What a model is: architecture, recipe, schedule, preprocessing, MACs. No torch in here."""
