"""What learns with the simulator and the solvers, and what tells how the learning goes."""
