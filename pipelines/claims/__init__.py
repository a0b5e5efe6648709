"""The paper's claims as experiments: what is compared, what is run, and what came of it."""
