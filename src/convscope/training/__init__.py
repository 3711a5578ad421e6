"""Training the project's own networks: recipes, data, the loop, and the card that tells how good the result is."""
