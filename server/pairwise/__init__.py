"""The coordinator of pairwise masks: Advertising -> Dealing -> Masking -> Agreeing -> Revealing -> Sum."""
