"""Views: what layers and units of a network hold."""
