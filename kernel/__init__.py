"""Agent Kernel: sandbox, durable runs, memory, skills and orchestration behind one door."""
