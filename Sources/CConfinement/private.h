#pragma once
#include <linux/filter.h>

struct cconfinement_filter {
  struct sock_fprog program;
  // The same, and each bind(2) and listen(2) asks the keeper; empty where this kernel has no such thing.
  struct sock_fprog asking;
};
