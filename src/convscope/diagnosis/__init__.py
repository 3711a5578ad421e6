"""Diagnosis: what is wrong with a network, as findings with their evidence."""
