// All the loops for one instruction set. The file that includes this is compiled with the flags that allow it.
#pragma once

#include "loops.h"
#include "softmax.h"
#include "statistics.h"

namespace torchact::TORCHACT_CAPABILITY {

constexpr cpu::Kernels kernels(const char* name) {
#define TORCHACT_LOOPS_OF_ONE(key, Formula, parameters) loops_of_one<formulas::Formula>(),
#define TORCHACT_LOOPS_OF_TWO(key, Formula, parameters) loops_of_two<formulas::Formula>(),
#define TORCHACT_LOOPS_OF_NORMALISED(key) softmax_loops<Normalised::key>(),
  return {name,
          {{TORCHACT_ELEMENTWISE(TORCHACT_LOOPS_OF_ONE)}},
          {{TORCHACT_PAIRS(TORCHACT_LOOPS_OF_TWO)}},
          {{OfHalf<BFloat16>::loops(), OfHalf<Float16>::loops()}},
          {{&log_sigmoid<float>, &log_sigmoid<double>}},
          {{TORCHACT_NORMALISED(TORCHACT_LOOPS_OF_NORMALISED)}},
          {{&Statistics<float>::run, &Statistics<double>::run}},
          {{&Statistics<float>::run_within, &Statistics<double>::run_within}},
          {{&LargestOfUnits<float>::run, &LargestOfUnits<double>::run, &LargestOfUnits<BFloat16>::run,
            &LargestOfUnits<Float16>::run}}};
#undef TORCHACT_LOOPS_OF_ONE
#undef TORCHACT_LOOPS_OF_TWO
#undef TORCHACT_LOOPS_OF_NORMALISED
}

}  // namespace torchact::TORCHACT_CAPABILITY
