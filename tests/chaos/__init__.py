"""Real processes under real faults, and what must hold all the same."""
