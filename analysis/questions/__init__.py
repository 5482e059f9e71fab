"""The stage questions: is the model still unruly, when to switch from shaping to setting, and what was won back."""
