"""What the layers of a network have learned: their outputs as tables, a linear probe, nearest neighbors."""
