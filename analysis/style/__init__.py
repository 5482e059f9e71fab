"""How texts differ in style: pure functions on texts first, so that a sweep's report and `compare` share them."""
