untrusted comment: verify with the public key of the pgbackupd that made it
RWRR6vzOsRTcoOS7MZ98N6YO9YbftoTGRhMXySgVyFeRNASJkqF93QLcK/kzBgDLVhATTkm8PAezdg1EFP9ue7B9iFvG/RuZUww=
