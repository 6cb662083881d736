// The one translation unit that holds volk's code (and with it the global function pointers).
#define VOLK_IMPLEMENTATION
#include <volk.h>
