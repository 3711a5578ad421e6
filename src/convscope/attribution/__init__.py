"""Attribution: which parts of one picture a network's output depends on."""
