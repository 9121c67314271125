// Compiled once per instruction set, with DS_ISA naming it.
#include "blend.inl"
#include "codes.inl"
#include "features.inl"
#include "lift.inl"
#include "relevancy.inl"

#define DS_STRING_(x) #x
#define DS_STRING(x) DS_STRING_(x)

namespace dictsplat::DS_ISA {

extern const Kernels table;
const Kernels table = {DS_STRING(DS_ISA), blend, blend_vjp, codes, codes_vjp, features, lift, relevancy};

}  // namespace dictsplat::DS_ISA
