// Looks again until what is being computed is there.

setTimeout(() => location.reload(), 2000);
