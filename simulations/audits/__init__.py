"""What is asked of a finished run: is every privacy figure true, and does the model serve every group."""
