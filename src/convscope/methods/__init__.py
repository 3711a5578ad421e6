"""One file per family of methods; each reads like its section of the paper."""
