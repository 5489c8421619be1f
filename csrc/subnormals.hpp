// Numbers below the normal ones, for kernels that prove bounds.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace backsolve {

// While one lives, this thread computes with subnormal numbers, whatever the process has chosen (as with
// torch.set_flush_denormal). Where the processor is another, nothing changes: `local::flushes` tells.
class Subnormals {
 public:
#if defined(__x86_64__) || defined(_M_X64)
  Subnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040u); }
  ~Subnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__) && defined(__GNUC__)
  Subnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(before_ & ~(1ull << 24)));
  }
  ~Subnormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  unsigned long long before_;
#else
  Subnormals() {}
#endif
  Subnormals(const Subnormals&) = delete;
  Subnormals& operator=(const Subnormals&) = delete;
};

}  // namespace backsolve
