"""A simulated world with exact truth: scenes, the parts they are made of, and moved photographs."""
