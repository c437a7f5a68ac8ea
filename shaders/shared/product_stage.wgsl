// Every fourth turn of a product of rows, a workgroup that shares by its memory puts the next terms into STAGE.
//#if STAGED
        if (k % 16u == 0u) {
            workgroupBarrier();
            ${STAGE}[lane] = load_${RIGHT}(right_at, min(k + lane % 4u * 4u, last), ${INNER});
            workgroupBarrier();
        }
//#end
