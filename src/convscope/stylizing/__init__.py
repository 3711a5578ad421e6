"""Style as a network: trained once, it paints any picture of any size in one pass (Johnson et al. 2016)."""
