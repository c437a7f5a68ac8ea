// Rows are read four elements at a time where their lengths allow it.
//#if ALIGNED
alias Element = vec4<f32>;
//#else
alias Element = f32;
//#end
