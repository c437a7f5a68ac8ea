//#if SUBGROUP
    @builtin(subgroup_id) part: u32,
    @builtin(subgroup_invocation_id) lane: u32,
//#else
    @builtin(local_invocation_index) local: u32,
//#end
) {
//#if SUBGROUP
//#else
//#if WHOLE
    let part = 0u;
    let lane = local;
//#else
    let part = local / LANES;
    let lane = local % LANES;
//#end
//#end
