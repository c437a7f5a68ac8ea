/* Emulates the kernel's i915 driver for Mesa's Vulkan driver for Intel GPUs, which then compiles as if the GPU were present.
 * Preloaded, this library handles the requests to /dev/dri/renderD128 that the driver makes to create a device and pipelines.
 * Nothing is executed; memory is a sparse memfd.
 *
 * I915_DEVICE: PCI id in hexadecimal (46a6 Alder Lake-P GT2, 9a49 Tiger Lake GT2, 7d55 Meteor Lake GT2); I915_SUBSLICES and
 * I915_EUS per subslice; I915_DEBUG prints the requests that return 0 without being handled. */
#define _GNU_SOURCE
#include <drm/i915_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xf86drm.h>

static const char NODE[] = "/dev/dri/renderD128";
static int is_ours[4096];
static uint64_t next_offset = 1 << 20;
static uint64_t offsets[1 << 16], sizes[1 << 16];
static uint32_t next_handle = 1;

static unsigned number(const char *name, unsigned otherwise, int base) {
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, base) : otherwise;
}

static int open_node(void) {
    int fd = memfd_create("i915", 0);
    if (ftruncate(fd, (off_t)1 << 42)) perror("ftruncate");
    if (fd >= 0 && fd < 4096) is_ours[fd] = 1;
    return fd;
}

static int ours(const char *path) { return path && strcmp(path, NODE) == 0; }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return ours(path) ? open_node() : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return ours(path) ? open_node() : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int stat(const char *path, struct stat *s) { return fstatat(AT_FDCWD, ours(path) ? "/dev/null" : path, s, 0); }
int stat64(const char *path, struct stat64 *s) { return fstatat64(AT_FDCWD, ours(path) ? "/dev/null" : path, s, 0); }
int fcntl64(int fd, int command, ...) {
    va_list more;
    va_start(more, command);
    long value = va_arg(more, long);
    va_end(more);
    int result = (int)syscall(SYS_fcntl, fd, command, value);
    if (result >= 0 && result < 4096 && fd >= 0 && fd < 4096 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC))
        is_ours[result] = is_ours[fd];
    return result;
}

/* libdrm's list of devices: only this one. */
static struct {
    drmDevice device;
    drmPciBusInfo bus;
    drmPciDeviceInfo info;
    char *nodes[DRM_NODE_MAX];
} card;

static drmDevicePtr the_card(void) {
    card.bus = (drmPciBusInfo){.domain = 0, .bus = 0, .dev = 2, .func = 0};
    card.info = (drmPciDeviceInfo){.vendor_id = 0x8086, .device_id = (uint16_t)number("I915_DEVICE", 0x46a6, 16), .revision_id = 1};
    card.nodes[DRM_NODE_RENDER] = (char *)NODE;
    card.nodes[DRM_NODE_PRIMARY] = (char *)NODE;
    card.device.nodes = card.nodes;
    card.device.available_nodes = 1 << DRM_NODE_RENDER;
    card.device.bustype = DRM_BUS_PCI;
    card.device.businfo.pci = &card.bus;
    card.device.deviceinfo.pci = &card.info;
    return &card.device;
}
int drmGetDevices2(uint32_t flags, drmDevicePtr devices[], int most) {
    (void)flags;
    if (devices && most > 0) devices[0] = the_card();
    return 1;
}
int drmGetDevice2(int fd, uint32_t flags, drmDevicePtr *device) {
    (void)fd, (void)flags;
    *device = the_card();
    return 0;
}
int drmGetDevice(int fd, drmDevicePtr *device) { return drmGetDevice2(fd, 0, device); }
void drmFreeDevice(drmDevicePtr *device) { *device = NULL; }
void drmFreeDevices(drmDevicePtr devices[], int count) { (void)devices, (void)count; }
drmVersionPtr drmGetVersion(int fd) {
    (void)fd;
    static drmVersion version = {.version_major = 1, .version_minor = 6, .name = "i915", .name_len = 4, .date = "", .desc = ""};
    return &version;
}
void drmFreeVersion(drmVersionPtr version) { (void)version; }

static int param(struct drm_i915_getparam *p) {
    int subslices = (int)number("I915_SUBSLICES", 6, 10), eus = (int)number("I915_EUS", 16, 10);
    switch (p->param) {
    case I915_PARAM_CHIPSET_ID: *p->value = (int)number("I915_DEVICE", 0x46a6, 16); break;
    case I915_PARAM_REVISION: *p->value = 1; break;
    case I915_PARAM_CS_TIMESTAMP_FREQUENCY: *p->value = 19200000; break;
    case I915_PARAM_SLICE_MASK: *p->value = 1; break;
    case I915_PARAM_SUBSLICE_MASK: *p->value = (1 << subslices) - 1; break;
    case I915_PARAM_SUBSLICE_TOTAL: *p->value = subslices; break;
    case I915_PARAM_EU_TOTAL: *p->value = subslices * eus; break;
    case I915_PARAM_MMAP_GTT_VERSION: *p->value = 4; break;
    case I915_PARAM_CMD_PARSER_VERSION: *p->value = 10; break;
    default: *p->value = 1; break;
    }
    return 0;
}

static int query_item(struct drm_i915_query_item *item) {
    int subslices = (int)number("I915_SUBSLICES", 6, 10), eus = (int)number("I915_EUS", 16, 10);
    union {
        uint8_t bytes[1024];
        struct drm_i915_query_topology_info topology;
        struct drm_i915_query_engine_info engines;
        struct drm_i915_query_memory_regions regions;
    } out;
    memset(&out, 0, sizeof out);
    int length = 0;
    switch (item->query_id) {
    case DRM_I915_QUERY_TOPOLOGY_INFO:
    case DRM_I915_QUERY_GEOMETRY_SUBSLICES: {
        int eu_bytes = (eus + 7) / 8, subslice_bytes = (subslices + 7) / 8;
        out.topology.max_slices = 1;
        out.topology.max_subslices = (uint16_t)subslices;
        out.topology.max_eus_per_subslice = (uint16_t)eus;
        out.topology.subslice_offset = 1;
        out.topology.subslice_stride = (uint16_t)subslice_bytes;
        out.topology.eu_offset = (uint16_t)(1 + subslice_bytes);
        out.topology.eu_stride = (uint16_t)eu_bytes;
        out.topology.data[0] = 1;
        for (int s = 0; s < subslices; s++) {
            out.topology.data[1 + s / 8] |= (uint8_t)(1 << s % 8);
            for (int e = 0; e < eus; e++)
                out.topology.data[1 + subslice_bytes + s * eu_bytes + e / 8] |= (uint8_t)(1 << e % 8);
        }
        length = (int)sizeof out.topology + 1 + subslice_bytes + subslices * eu_bytes;
        break;
    }
    case DRM_I915_QUERY_ENGINE_INFO:
        out.engines.num_engines = 2;
        out.engines.engines[0].engine = (struct i915_engine_class_instance){I915_ENGINE_CLASS_RENDER, 0};
        out.engines.engines[1].engine = (struct i915_engine_class_instance){I915_ENGINE_CLASS_COPY, 0};
        length = (int)(sizeof out.engines + 2 * sizeof out.engines.engines[0]);
        break;
    case DRM_I915_QUERY_MEMORY_REGIONS:
        out.regions.num_regions = 1;
        out.regions.regions[0].region = (struct drm_i915_gem_memory_class_instance){I915_MEMORY_CLASS_SYSTEM, 0};
        out.regions.regions[0].probed_size = (uint64_t)16 << 30;
        out.regions.regions[0].unallocated_size = (uint64_t)16 << 30;
        length = (int)(sizeof out.regions + sizeof out.regions.regions[0]);
        break;
    default: item->length = -EINVAL; return 0;
    }
    if (item->length >= length) memcpy((void *)(uintptr_t)item->data_ptr, out.bytes, (size_t)length);
    item->length = length;
    return 0;
}

static uint32_t new_object(uint64_t size) {
    uint32_t handle = next_handle++;
    size = (size + 65535) & ~(uint64_t)65535;
    offsets[handle & 65535] = next_offset;
    sizes[handle & 65535] = size;
    next_offset += size;
    return handle;
}

static int answer(int fd, unsigned long request, void *arg) {
    (void)fd;
    switch (request) {
    case DRM_IOCTL_I915_GETPARAM: return param(arg);
    case DRM_IOCTL_I915_QUERY: {
        struct drm_i915_query *q = arg;
        struct drm_i915_query_item *items = (void *)(uintptr_t)q->items_ptr;
        for (uint32_t i = 0; i < q->num_items; i++) query_item(&items[i]);
        return 0;
    }
    case DRM_IOCTL_I915_GEM_CREATE: {
        struct drm_i915_gem_create *c = arg;
        c->handle = new_object(c->size);
        return 0;
    }
    case DRM_IOCTL_I915_GEM_CREATE_EXT: {
        struct drm_i915_gem_create_ext *c = arg;
        c->handle = new_object(c->size);
        return 0;
    }
    case DRM_IOCTL_I915_GEM_MMAP_OFFSET: {
        struct drm_i915_gem_mmap_offset *m = arg;
        m->offset = offsets[m->handle & 65535];
        return 0;
    }
    case DRM_IOCTL_I915_GEM_USERPTR: {
        struct drm_i915_gem_userptr *u = arg;
        u->handle = new_object(u->user_size);
        return 0;
    }
    case DRM_IOCTL_I915_GEM_CONTEXT_CREATE_EXT: {
        struct drm_i915_gem_context_create_ext *c = arg;
        c->ctx_id = 1;
        return 0;
    }
    case DRM_IOCTL_I915_GEM_CONTEXT_CREATE: {
        struct drm_i915_gem_context_create *c = arg;
        c->ctx_id = 1;
        return 0;
    }
    case DRM_IOCTL_I915_GEM_VM_CREATE: {
        struct drm_i915_gem_vm_control *v = arg;
        v->vm_id = 1;
        return 0;
    }
    case DRM_IOCTL_I915_GEM_CONTEXT_GETPARAM: {
        struct drm_i915_gem_context_param *p = arg;
        p->value = p->param == I915_CONTEXT_PARAM_GTT_SIZE ? (uint64_t)1 << 48 : 1;
        return 0;
    }
    case DRM_IOCTL_I915_GEM_GET_APERTURE: {
        struct drm_i915_gem_get_aperture *a = arg;
        a->aper_size = a->aper_available_size = (uint64_t)1 << 48;
        return 0;
    }
    case DRM_IOCTL_SYNCOBJ_CREATE: {
        struct drm_syncobj_create *c = arg;
        c->handle = next_handle++;
        return 0;
    }
    case DRM_IOCTL_GET_CAP: {
        struct drm_get_cap *c = arg;
        c->value = 1;
        return 0;
    }
    default:
        if (getenv("I915_DEBUG")) fprintf(stderr, "i915: %lx returns 0\n", request);
        return 0;
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list more;
    va_start(more, request);
    void *arg = va_arg(more, void *);
    va_end(more);
    if (fd >= 0 && fd < 4096 && is_ours[fd]) return answer(fd, request, arg);
    return (int)syscall(SYS_ioctl, fd, request, arg);
}
