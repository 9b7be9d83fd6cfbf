#pragma once
#include <linux/filter.h>

struct cconfinement_filter {
  struct sock_fprog program;
};
