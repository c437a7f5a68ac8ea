// logprob_forward: folds a chunk of the logits x into the statistics of each row, an invocation a row or (WIDE) a
// workgroup a row.
//   logits (T, stride)  targets (T)   ->   state (T, 4)  = or (LATER) updated
//   with LAST also   ->   logp (T)  entropy (T)  lse (T)  =
// state: m = max x,  s = Σ exp(x - m),  u = Σ exp(x - m) (x - m),  x[target]
// lse = m + ln s,  logp = x[target] - lse,  entropy = ln s - u / s
// cols: columns of logits used here: tokens from `first` on
// stride: columns of logits in all

//#if WIDE
var<workgroup> largest: array<f32, 64>;
var<workgroup> sums: array<vec2<f32>, 64>;
//#end

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let rows = extent(params.rows);
    let wide = WIDE;
    let row = select(group * 64u + lane, group, wide);
    let first = select(0u, lane, wide);
    let stride = select(1u, 64u, wide);
    let at = min(row, rows - 1u) * params.stride;
    var m = -1e30;
    for (var v = first; v < params.cols; v += stride) {
        m = max(m, logits[at + v]);
    }
//#if WIDE
    largest[lane] = m;
    workgroupBarrier();
    for (var i = 0u; i < 64u; i++) {
        m = max(m, largest[i]);
    }
//#end
    var sum = vec2(0.0);
    for (var v = first; v < params.cols; v += stride) {
        let x = logits[at + v] - m;
        sum += exp(x) * vec2(1.0, x);
    }
//#if WIDE
    sums[lane] = sum;
    workgroupBarrier();
    sum = vec2(0.0);
    for (var i = 0u; i < 64u; i++) {
        sum += sums[i];
    }
//#end
    if (group >= step.end || row >= rows || (wide && lane > 0u)) {
        return;
    }
    var now = vec4(m, sum, -1e30);
    // A target below `first` wraps around to a large number.
    let target_col = targets[row] - params.first;
    if (target_col < params.cols) {
        now.w = logits[at + target_col];
    }
//#if LATER
    let old = state[row];
    let top = max(old.x, m);
    let by_old = exp(old.x - top);
    let by_new = exp(m - top);
    now = vec4(
        top,
        by_old * old.y + by_new * now.y,
        by_old * (old.z + (old.x - top) * old.y) + by_new * (now.z + (m - top) * now.y),
        max(old.w, now.w),
    );
//#end
    state[row] = now;
//#if LAST
    let log_sum = log(now.y);
    lse[row] = now.x + log_sum;
    logp[row] = now.w - now.x - log_sum;
    entropy[row] = log_sum - now.z / now.y;
//#end
}
