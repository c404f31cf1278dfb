"""Secure aggregation by pairwise masks, `pairwise-v1`: the textbook protocol beside `alm-v1`, five stages an attempt.

Every pair of neighbours adds one mask that cancels in the sum, and every site one of its own. Shares of the secrets
behind both are dealt to the neighbours, who reveal for each site that survived its own mask, and for each that did
not its pair masks: never both.

Source: Bonawitz et al. 2017, figure 4 with its consistency check, on the graph of Bell et al. 2020. Who says what to
whom: `orders.py`; what is signed: `attempt.py`; why so many neighbours and shares: `strength.py`.
"""
