// logprob_forward: folds a chunk of the logits z, computed from the products x, into the statistics of each row; one
// row per invocation, or (WIDE) per workgroup.
//   logits (T, stride): x  targets (T)   ->   state (T, 4)  = or (LATER) updated
//   with LAST also   ->   logp (T)  entropy (T)  lse (T)  =
//   with SQUARES also   ->   log_sum_squares (T)  = or (LATER) updated: q = Σ exp(2 (z - m)), after the LAST chunk log Σ p²
// state: m = max z,  s = Σ exp(z - m),  u = Σ exp(z - m) (z - m),  z[target]
// lse = m + ln s,  logp = z[target] - lse,  entropy = ln s - u / s,  log Σ p² = ln (q / s²)
// cols: the number of columns of logits in use: tokens from `first` on
// stride: the total number of columns of logits
//#include logits

//#if WIDE
var<workgroup> largest: array<f32, 64>;
var<workgroup> sums: array<vec2<f32>, 64>;
//#if SQUARES
var<workgroup> square_sums: array<f32, 64>;
//#end
//#end

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let rows = extent(params.rows);
    let wide = WIDE;
    let row = select(group * 64u + lane, group, wide);
    let first = select(0u, lane * 4u, wide);
    let stride = select(4u, 256u, wide);
    let at = min(row, rows - 1u) * params.stride;
    var tops = vec4(-1e30);
    for (var v = first; v < params.cols; v += stride) {
        let z = logits_of(load_logits(at, v, params.cols));
        tops = max(tops, select(vec4(-1e30), z, columns_below(v, params.cols)));
    }
    var m = max(max(tops.x, tops.y), max(tops.z, tops.w));
//#if WIDE
    largest[lane] = m;
    workgroupBarrier();
    for (var i = 0u; i < 64u; i++) {
        m = max(m, largest[i]);
    }
//#end
    var s = vec4<f32>();
    var u = vec4<f32>();
//#if SQUARES
    var q = vec4<f32>();
//#end
    for (var v = first; v < params.cols; v += stride) {
        let below = logits_of(load_logits(at, v, params.cols)) - m;
        let weights = select(vec4<f32>(), exp(below), columns_below(v, params.cols));
        s += weights;
        u += weights * below;
//#if SQUARES
        q += weights * weights;
//#end
    }
    var sum = vec2(dot(s, vec4(1.0)), dot(u, vec4(1.0)));
//#if SQUARES
    var squares = dot(q, vec4(1.0));
//#end
//#if WIDE
    sums[lane] = sum;
//#if SQUARES
    square_sums[lane] = squares;
//#end
    workgroupBarrier();
    sum = vec2(0.0);
    for (var i = 0u; i < 64u; i++) {
        sum += sums[i];
    }
//#if SQUARES
    squares = 0.0;
    for (var i = 0u; i < 64u; i++) {
        squares += square_sums[i];
    }
//#end
//#end
    if (group >= step.end || row >= rows || (wide && lane > 0u)) {
        return;
    }
    var now = vec4(m, sum, -1e30);
    // A target below `first` wraps around to a large number.
    let target_col = targets[row] - params.first;
    if (target_col < params.cols) {
        now.w = logits_of(load_logits(at, target_col / 4u * 4u, params.cols))[target_col % 4u];
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
//#if SQUARES
    squares = by_old * by_old * log_sum_squares[row] + by_new * by_new * squares;
//#end
//#end
    state[row] = now;
//#if SQUARES
    log_sum_squares[row] = squares;
//#end
//#if LAST
    let log_sum = log(now.y);
    lse[row] = now.x + log_sum;
    logp[row] = now.w - now.x - log_sum;
    entropy[row] = log_sum - now.z / now.y;
//#if SQUARES
    log_sum_squares[row] = log(squares / (now.y * now.y));
//#end
//#end
}
