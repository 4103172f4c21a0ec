// Which instruction sets this build and this processor have, best first.
#pragma once
#include <vector>

#include "tiles.h"

namespace semicl {

// Never empty: the baseline runs everywhere.
std::vector<const InstructionSet*> instruction_sets();

}  // namespace semicl
