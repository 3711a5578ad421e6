"""Papers reproduced: their experiments on any network, each claim judged by a rule that can fail."""
