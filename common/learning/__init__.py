"""What a site does with its records before anything leaves it: task, loss, local optimizer, plan."""
