"""The coordinator: orders a round, gathers its sum, steps the model, keeps the record."""
