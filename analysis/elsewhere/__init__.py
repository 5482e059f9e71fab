"""Results that other tools wrote: their outputs and annotations, measured by the same rules."""
