// QueueExecution
