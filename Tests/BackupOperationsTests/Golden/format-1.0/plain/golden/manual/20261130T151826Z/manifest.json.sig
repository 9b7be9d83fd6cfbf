untrusted comment: verify with the public key of the pgbackupd that made it
RWRR6vzOsRTcoA/K2vzaIaHlUqTY3VoN8BEM7kQiR5k9FGZ5lw2aHu/tFVR0J3EAOzf08tbuuu6wjDUfYhdVySHuOYFGwNDGQw4=
