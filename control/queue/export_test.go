package queue

// AckWait is how long a message may stay without a sign of work.
const AckWait = ackWait
