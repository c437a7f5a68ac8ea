//! Creates pipelines as wgpu does, with the Vulkan driver that the loader finds, and queries the driver's statistics of
//! their code.

use std::ffi::CStr;

use ash::{ext, khr, vk};

use crate::Result;
use crate::stats::Device;

/// A binding of a kernel: group, number, and whether it is a uniform.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    pub group: u32,
    pub number: u32,
    pub uniform: bool,
}

/// The bind group of values that change from launch to launch, bound with a dynamic offset.
const STEP_GROUP: u32 = 1;

pub struct Driver {
    pub info: Device,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    // Both must outlive the device, which is never destroyed: the process ends first.
    _instance: ash::Instance,
    _entry: ash::Entry,
}

/// A driver's information about a pipeline.
pub struct PipelineInfo {
    /// Under the driver's own names.
    pub statistics: Vec<(String, f64)>,
    /// The code, if it was requested and the driver can list it.
    pub listing: Option<String>,
}

impl Driver {
    /// Opens the first GPU, with the features that affect wgpu's pipelines.
    pub fn open() -> Result<Driver> {
        // SAFETY: Vulkan calls with structures that live as long as the call.
        unsafe {
            let entry = ash::Entry::load()?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let create = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&create, None)?;
            let found = instance.enumerate_physical_devices()?;
            let physical = *found.first().ok_or("the driver found no GPU")?;

            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut sizes = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
            let mut properties =
                vk::PhysicalDeviceProperties2::default().push_next(&mut driver).push_next(&mut sizes);
            instance.get_physical_device_properties2(physical, &mut properties);
            let name = text(&properties.properties.device_name);
            let driver = format!("{} {}", text(&driver.driver_name), text(&driver.driver_info));
            let subgroups = (sizes.min_subgroup_size, sizes.max_subgroup_size);

            let mut have11 = vk::PhysicalDeviceVulkan11Features::default();
            let mut have12 = vk::PhysicalDeviceVulkan12Features::default();
            let mut have13 = vk::PhysicalDeviceVulkan13Features::default();
            let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
            let extensions = instance.enumerate_device_extension_properties(physical)?;
            let has = |name: &CStr| extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
            let mut wanted = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut have = vk::PhysicalDeviceFeatures2::default()
                .push_next(&mut have11)
                .push_next(&mut have12)
                .push_next(&mut have13);
            if has(ext::robustness2::NAME) {
                have = have.push_next(&mut robust);
                wanted.push(ext::robustness2::NAME.as_ptr());
            }
            instance.get_physical_device_features2(physical, &mut have);
            let core = have.features;

            let yes = |feature: vk::Bool32| feature == vk::TRUE;
            let mut use11 = vk::PhysicalDeviceVulkan11Features::default()
                .storage_buffer16_bit_access(yes(have11.storage_buffer16_bit_access))
                .uniform_and_storage_buffer16_bit_access(yes(have11.uniform_and_storage_buffer16_bit_access));
            let mut use12 = vk::PhysicalDeviceVulkan12Features::default()
                .shader_float16(yes(have12.shader_float16))
                .vulkan_memory_model(yes(have12.vulkan_memory_model))
                .vulkan_memory_model_device_scope(yes(have12.vulkan_memory_model_device_scope));
            let mut use13 = vk::PhysicalDeviceVulkan13Features::default()
                .subgroup_size_control(yes(have13.subgroup_size_control))
                .maintenance4(yes(have13.maintenance4));
            let mut use_robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
                .robust_buffer_access2(yes(robust.robust_buffer_access2));
            let mut executable = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
                .pipeline_executable_info(true);
            let core = vk::PhysicalDeviceFeatures::default()
                .robust_buffer_access(yes(core.robust_buffer_access))
                .shader_int16(yes(core.shader_int16));
            let priorities = [1.0];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&priorities)];
            let mut create = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&wanted)
                .enabled_features(&core)
                .push_next(&mut use11)
                .push_next(&mut use12)
                .push_next(&mut use13)
                .push_next(&mut executable);
            if has(ext::robustness2::NAME) {
                create = create.push_next(&mut use_robust);
            }
            let device = instance.create_device(physical, &create, None)?;
            let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
            let info = Device { name, driver, subgroups };
            Ok(Driver { info, device, executables, _instance: instance, _entry: entry })
        }
    }

    /// Compiles a kernel; with `listing`, also lists its code, which takes time.
    pub fn compile(&self, spirv: &[u32], bindings: &[Binding], listing: bool) -> Result<PipelineInfo> {
        // SAFETY: as in `open`; objects created here are destroyed here, after their last use.
        unsafe {
            let mut layouts = Vec::new();
            for group in 0..=STEP_GROUP {
                let of_group = bindings.iter().filter(|binding| binding.group == group);
                let entries: Vec<_> = of_group.map(layout_entry).collect();
                let create = vk::DescriptorSetLayoutCreateInfo::default().bindings(&entries);
                layouts.push(self.device.create_descriptor_set_layout(&create, None)?);
            }
            let create = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
            let layout = self.device.create_pipeline_layout(&create, None)?;
            let create = vk::ShaderModuleCreateInfo::default().code(spirv);
            let module = self.device.create_shader_module(&create, None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main")
                // As wgpu does if a GPU has subgroups.
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE);
            let mut flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR;
            if listing {
                flags |= vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            }
            let create = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout).flags(flags);
            let created = self.device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None);
            let info = match created {
                Ok(pipelines) => {
                    let info = self.pipeline_info(pipelines[0], listing);
                    self.device.destroy_pipeline(pipelines[0], None);
                    info
                }
                Err((_, error)) => Err(error.into()),
            };
            self.device.destroy_shader_module(module, None);
            self.device.destroy_pipeline_layout(layout, None);
            layouts.into_iter().for_each(|set| self.device.destroy_descriptor_set_layout(set, None));
            info
        }
    }

    fn pipeline_info(&self, pipeline: vk::Pipeline, listing: bool) -> Result<PipelineInfo> {
        // SAFETY: as in `open`.
        unsafe {
            let of = vk::PipelineInfoKHR::default().pipeline(pipeline);
            let executables = self.executables.get_pipeline_executable_properties(&of)?;
            // On all of these drivers, a compute pipeline has one executable.
            let executable = executables.first().ok_or("the driver reports no executable of the pipeline")?;
            let at = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
            let mut statistics = vec![("subgroup lanes".to_owned(), f64::from(executable.subgroup_size))];
            for s in self.executables.get_pipeline_executable_statistics(&at)? {
                let value = match s.format {
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => s.value.u64 as f64,
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => s.value.i64 as f64,
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => s.value.f64,
                    _ => f64::from(s.value.b32),
                };
                statistics.push((text(&s.name), value));
            }
            let listing = if listing { self.assembly(&at)? } else { None };
            Ok(PipelineInfo { statistics, listing })
        }
    }

    /// Returns the representation of the code that the driver calls assembly.
    fn assembly(&self, at: &vk::PipelineExecutableInfoKHR) -> Result<Option<String>> {
        // SAFETY: as the extension requires: a call for the number, one for the sizes, one with memory of these sizes.
        unsafe {
            let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
            let mut count = 0;
            get(self.device.handle(), at, &mut count, std::ptr::null_mut()).result()?;
            let mut all = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            get(self.device.handle(), at, &mut count, all.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = all.iter().map(|r| vec![0; r.data_size]).collect();
            for (representation, text) in all.iter_mut().zip(&mut texts) {
                representation.p_data = text.as_mut_ptr().cast();
            }
            get(self.device.handle(), at, &mut count, all.as_mut_ptr()).result()?;
            let is_assembly =
                |r: &vk::PipelineExecutableInternalRepresentationKHR| text(&r.name) == "Assembly";
            let found = all.iter().position(is_assembly);
            Ok(found.map(|i| String::from_utf8_lossy(&texts[i]).trim_end_matches('\0').to_owned()))
        }
    }
}

fn layout_entry(binding: &Binding) -> vk::DescriptorSetLayoutBinding<'static> {
    let kind = match (binding.uniform, binding.group == STEP_GROUP) {
        (true, true) => vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC,
        (true, false) => vk::DescriptorType::UNIFORM_BUFFER,
        (false, _) => vk::DescriptorType::STORAGE_BUFFER,
    };
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding.number)
        .descriptor_count(1)
        .descriptor_type(kind)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
}

/// Converts a driver's zero-terminated string.
fn text(chars: &[std::ffi::c_char]) -> String {
    let bytes = chars.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned());
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}
