"""One sampler for rollouts, preference data and evaluation."""
