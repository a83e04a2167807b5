/* A library that answers as NVML does (nvml.h of NVIDIA's driver), for one processor that it makes up. It must be
   initialized before it answers, like the real one, and its processor does not know its power. */
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };

static int begun;
static int the_device;

int nvmlInit_v2(void) { begun = 1; return SUCCESS; }
int nvmlShutdown(void) { begun = 0; return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 2;
    return begun ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **device)
{
    *device = &the_device;
    /* The second one has fallen off its bus. */
    return number == 0 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "550.1"); return SUCCESS; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) { snprintf(text, length, "Fake 9000"); return SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) { snprintf(text, length, "GPU-1"); return SUCCESS; }

struct pci { char old[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *pci)
{
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x3b;
    strcpy(pci->old, "0000:3B:00.0");
    strcpy(pci->bus_id, "00000000:3B:00.0");
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *percent)
{
    percent[0] = 75;
    percent[1] = 30;
    return SUCCESS;
}

struct memory { unsigned version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory)
{
    if (memory->version != (sizeof *memory | 2 << 24)) return INVALID_ARGUMENT;
    memory->total = 8ull << 30;
    memory->reserved = 1 << 20;
    memory->used = 3ull << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { *celsius = 61; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { return NOT_SUPPORTED; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) { *millijoules = 12500; return SUCCESS; }

int nvmlDeviceGetTotalEccErrors(void *device, int kind, int since, unsigned long long *errors)
{
    *errors = kind == 0 ? 7 : 1;
    return since == 0 ? SUCCESS : INVALID_ARGUMENT;
}
