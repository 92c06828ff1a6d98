"""`make demo`: the deployment record that this product was asked for, done again on three hosts of a bed."""
