"""What is done to pictures and boxes before and after a network: functions on arrays."""
