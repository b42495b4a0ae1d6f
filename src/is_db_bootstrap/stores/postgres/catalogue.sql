-- What the schemas %(schemas)s hold, one row for each object or attribute.
--
-- A row is: kind, schema (empty for what belongs to the whole database), the parts of its name,
-- what follows the name, the definition in a file of format 1, and the one in a file of format 2.
-- A definition that is NULL is no part of a file of that format.
--
-- `catalogue.py` joins the blocks that it needs with UNION ALL. A block begins with the line that
-- names its kinds, and the first major version that can be asked, unless it is 14. Before them stand
-- the queries that blocks refer to by their names, of which it takes those that are needed.
--
-- %(version)s is a version table in any schema, %(record)s is the quoted name of the one, and %(roles)s are the roles that a catalogue names.
--
-- Definitions are those of the server's own functions, so that PostgreSQL 14 to 18 agree.
-- pg_get_constraintdef and pg_get_triggerdef leave out the schemas of the search path,
-- pg_get_indexdef, pg_get_viewdef and pg_get_ruledef only when pretty. Names are cast to text,
-- because a union with the type name cuts them at 63 bytes.
-- with: space
space AS (
    SELECT oid, nspname::text AS schema, nspowner, nspacl
    FROM pg_namespace WHERE nspname = ANY(%(schemas)s)
)
-- with: of_extension
of_extension AS MATERIALIZED (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND objsubid = 0
)
-- with: own
-- A sequence of an identity column depends on it with deptype i.
own AS MATERIALIZED (
    SELECT c.oid, c.relname::text AS relname, c.relkind, c.relpersistence, c.relrowsecurity,
           c.relforcerowsecurity, c.relispartition, c.relpartbound, c.reloftype, c.reloptions,
           c.relreplident, c.relowner, c.relacl, c.reltoastrelid, space.schema
    FROM pg_class c JOIN space ON space.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relname <> %(version)s
      AND c.oid IS DISTINCT FROM to_regclass(%(record)s)
      AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
          AND d.deptype IN ('e', 'i'))
)
-- with: own_type
own_type AS (
    SELECT t.*, space.schema
    FROM pg_type t JOIN space ON space.oid = t.typnamespace
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid)
)
-- with: own_function
own_function AS (
    SELECT p.*, space.schema,
           p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS called
    FROM pg_proc p JOIN space ON space.oid = p.pronamespace
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
)
-- with: sequence_limits
sequence_limits AS (
    SELECT s.*,
           CASE WHEN seqincrement > 0 THEN 1 ELSE lowest END AS default_min,
           CASE WHEN seqincrement > 0 THEN highest ELSE -1 END AS default_max
    FROM pg_sequence s CROSS JOIN LATERAL (
        SELECT CASE seqtypid WHEN 'int2'::regtype THEN -32768 WHEN 'int4'::regtype THEN -2147483648
                             ELSE -9223372036854775808 END AS lowest,
               CASE seqtypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
                             ELSE 9223372036854775807 END AS highest) AS limits
)
-- with: sequence_options
-- What differs from the defaults of a sequence of its type. A sequence starts at its minimum, one
-- that counts down at its maximum.
sequence_options AS (
    SELECT seqrelid,
           CASE WHEN seqstart <> CASE WHEN seqincrement > 0 THEN seqmin ELSE seqmax END
                THEN 'START ' || seqstart END AS start,
           CASE WHEN seqincrement <> 1 THEN 'INCREMENT ' || seqincrement END AS increment,
           concat_ws(' ',
               CASE WHEN seqmin <> default_min THEN 'MINVALUE ' || seqmin END,
               CASE WHEN seqmax <> default_max THEN 'MAXVALUE ' || seqmax END,
               CASE WHEN seqcache <> 1 THEN 'CACHE ' || seqcache END,
               CASE WHEN seqcycle THEN 'CYCLE' END) AS others
    FROM sequence_limits
)
-- with: possession
-- Everything that has an owner and privileges. `acl` is NULL while nobody has changed them, and
-- they are the `defaults` then.
possession AS (
    SELECT 'relation' AS what, schema, ARRAY[relname] AS parts, '' AS called, relowner AS owner,
           relacl AS acl, NULL::aclitem[] AS defaults
    FROM own WHERE relkind <> 'S'
    UNION ALL
    SELECT 'sequence', schema, ARRAY[relname], '', relowner, relacl, NULL
    FROM own WHERE relkind = 'S'
    UNION ALL
    SELECT 'function', schema, '{}', called, proowner, proacl, acldefault('f', proowner)
    FROM own_function
    UNION ALL
    SELECT 'type', schema, ARRAY[typname::text], '', typowner, typacl, acldefault('T', typowner)
    FROM own_type
    WHERE typtype IN ('d', 'e', 'r', 'b') AND typcategory <> 'A'
       OR typtype = 'c' AND EXISTS (
            SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind = 'c')
    UNION ALL
    SELECT 'schema', schema, '{}', 'schema', nspowner, nspacl, NULL FROM space
    UNION ALL
    SELECT 'foreign server', '', ARRAY[srvname::text], '', srvowner, srvacl, NULL
    FROM pg_foreign_server s
    WHERE NOT EXISTS (
        SELECT FROM of_extension e
        WHERE e.classid = 'pg_foreign_server'::regclass AND e.objid = s.oid)
    UNION ALL
    SELECT 'relation', schema, ARRAY[relname, a.attname::text], '', relowner, a.attacl, NULL
    FROM own JOIN pg_attribute a ON a.attrelid = own.oid
    WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped
)
-- with: allowed
-- MAINTAIN does not exist before PostgreSQL 17. What PUBLIC may do in the schema public differs
-- between 14 and 15.
allowed AS (
    SELECT p.what, p.schema, p.parts, p.called, x.grantee, x.privilege_type AS privilege,
           bool_or(x.is_grantable) AS may_grant
    FROM possession p CROSS JOIN LATERAL aclexplode(p.acl) x
    WHERE x.grantee <> p.owner AND x.privilege_type <> 'MAINTAIN'
      AND NOT (p.what = 'schema' AND p.schema = 'public' AND x.grantee = 0)
    GROUP BY 1, 2, 3, 4, 5, 6
)
-- with: grants
grants AS (
    SELECT what, schema, parts, called, grantee,
           string_agg(privilege || CASE WHEN may_grant THEN ' WITH GRANT OPTION' ELSE '' END, ', '
                      ORDER BY privilege) AS privileges
    FROM allowed GROUP BY 1, 2, 3, 4, 5
)
-- with: default_grants
default_grants AS (
    SELECT p.what, p.schema, p.parts, p.called, x.grantee,
           string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type) AS privileges
    FROM possession p CROSS JOIN LATERAL aclexplode(p.defaults) x
    WHERE p.acl IS NOT NULL AND x.grantee = 0
    GROUP BY 1, 2, 3, 4, 5
)
-- kind: schema
SELECT 'schema', schema, '{}'::text[], schema, NULL::text, '' FROM space
-- kind: table
SELECT 'table', schema, ARRAY[relname], '', described,
    concat_ws(' ', described,
        CASE WHEN relispartition THEN 'of ' || (
            SELECT i.inhparent::regclass::text
                   || CASE WHEN i.inhdetachpending THEN ' DETACH PENDING' ELSE '' END
            FROM pg_inherits i WHERE i.inhrelid = own.oid) END,
        CASE WHEN NOT relispartition THEN (
            SELECT 'inherits ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
            FROM pg_inherits i WHERE i.inhrelid = own.oid) END,
        CASE WHEN reloftype <> 0 THEN 'of type ' || format_type(reloftype, NULL) END,
        (SELECT 'server ' || quote_ident(s.srvname)
         FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver
         WHERE f.ftrelid = own.oid))
    FROM own CROSS JOIN LATERAL (
        SELECT concat_ws(' ',
            CASE relpersistence WHEN 'u' THEN 'unlogged' END,
            CASE relkind WHEN 'f' THEN 'foreign' END, 'table',
            CASE WHEN relkind = 'p' THEN 'partition by ' || pg_get_partkeydef(oid) END,
            CASE WHEN relispartition THEN 'partition ' || pg_get_expr(relpartbound, oid) END,
            CASE WHEN relrowsecurity THEN 'row level security' END,
            CASE WHEN relforcerowsecurity THEN 'forced' END) AS described) AS said
    WHERE relkind IN ('r', 'p', 'f')
-- kind: view, materialized view
SELECT CASE relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, schema, ARRAY[relname], '',
       said.query, said.query
    FROM own CROSS JOIN LATERAL (SELECT pg_get_viewdef(oid, true) AS query) AS said
    WHERE relkind IN ('v', 'm')
-- kind: view option
SELECT 'view option', schema, ARRAY[relname, split_part(option, '=', 1)], '', NULL,
       substr(option, strpos(option, '=') + 1)
    FROM own CROSS JOIN LATERAL unnest(reloptions) AS option WHERE relkind = 'v'
-- kind: view column
SELECT 'view column', schema, ARRAY[relname, a.attname::text], '', NULL,
       'DEFAULT ' || pg_get_expr(f.adbin, f.adrelid)
    FROM own JOIN pg_attrdef f ON f.adrelid = own.oid
    JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
    WHERE own.relkind = 'v'
-- kind: sequence
SELECT 'sequence', schema, ARRAY[relname], '', said.first,
       concat_ws(' ', said.first, nullif(o.others, ''), (
           SELECT 'owned by ' || quote_ident(t.relname) || '.' || quote_ident(a.attname)
           FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
           JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
           WHERE d.classid = 'pg_class'::regclass AND d.objid = own.oid
             AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'))
    FROM own JOIN pg_sequence s ON s.seqrelid = own.oid
    JOIN sequence_options o ON o.seqrelid = own.oid
    CROSS JOIN LATERAL (
        SELECT concat(format_type(s.seqtypid, NULL), ' start ', s.seqstart,
                      ' increment ', s.seqincrement) AS first) AS said
-- kind: column
SELECT 'column', schema, ARRAY[relname, a.attname::text], '', said.first,
       concat_ws(' ', said.first,
           CASE WHEN a.attidentity <> '' THEN (
               SELECT '(' || nullif(concat_ws(' ', o.start, o.increment, nullif(o.others, '')), '')
                      || ')'
               FROM pg_depend d JOIN sequence_options o ON o.seqrelid = d.objid
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                 AND d.refobjid = own.oid AND d.refobjsubid = a.attnum AND d.deptype = 'i') END,
           CASE WHEN a.attnotnull AND EXISTS (
               SELECT FROM pg_constraint c
               WHERE c.conrelid = own.oid AND c.contype = 'n' AND c.conkey = ARRAY[a.attnum]
                 AND NOT c.convalidated) THEN 'NOT VALID' END)
    FROM own JOIN pg_attribute a ON a.attrelid = own.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
    CROSS JOIN LATERAL (SELECT concat_ws(' ',
        format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || quote_ident(l.collname) END,
        CASE WHEN a.attnotnull THEN 'NOT NULL' ELSE 'NULL' END,
        CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
                           WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
        CASE a.attgenerated
             WHEN 's' THEN 'GENERATED ALWAYS AS (' || pg_get_expr(f.adbin, f.adrelid) || ') STORED'
             WHEN 'v' THEN 'GENERATED ALWAYS AS (' || pg_get_expr(f.adbin, f.adrelid) || ') VIRTUAL'
             ELSE 'DEFAULT ' || pg_get_expr(f.adbin, f.adrelid) END) AS first) AS said
    WHERE own.relkind IN ('r', 'p', 'f')
-- kind: constraint
-- NOT NULL is a constraint of its own from 18 on (contype n). It is told with the column, as
-- before.
-- The parts that a foreign key has on partitions have other names in each version. DISABLE TRIGGER
-- ALL ends the enforcement of a foreign key.
SELECT 'constraint', schema, ARRAY[relname, c.conname::text], '', said.first,
       CASE WHEN NOT (c.contype = 'f' AND c.conparentid <> 0) THEN
            said.first || CASE WHEN EXISTS (
                SELECT FROM pg_trigger g
                WHERE g.tgconstraint = c.oid AND g.tgisinternal AND g.tgenabled = 'D'
            ) THEN ' TRIGGERS DISABLED' ELSE '' END END
    FROM own JOIN pg_constraint c ON c.conrelid = own.oid AND c.contype IN ('p', 'u', 'c', 'f', 'x')
    CROSS JOIN LATERAL (SELECT pg_get_constraintdef(c.oid) AS first) AS said
-- kind: index
SELECT 'index', schema, ARRAY[own.relname, x.relname::text], '', said.first, said.first
    FROM own JOIN pg_index i ON i.indrelid = own.oid JOIN pg_class x ON x.oid = i.indexrelid
    CROSS JOIN LATERAL (SELECT
        CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END
        || regexp_replace(
               regexp_replace(pg_get_indexdef(i.indexrelid, 0, true), '^.*? USING ', ''),
               ' (\w+|"[^"]+")\.(\w+_ops\M)', ' \2', 'g')
        || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END AS first) AS said
    WHERE NOT EXISTS (
        SELECT FROM pg_constraint c
        WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x') AND i.indisvalid)
-- kind: trigger
-- The part that a trigger has on a partition counts as internal before 15.
SELECT 'trigger', schema, ARRAY[relname, g.tgname::text], '',
       regexp_replace(said.whole, '^CREATE (CONSTRAINT )?TRIGGER \S+ ', '\1') || said.state,
       CASE WHEN g.tgparentid = 0 THEN
            regexp_replace(said.whole, '^CREATE (CONSTRAINT )?TRIGGER ("([^"]|"")+"|\S+) ', '\1')
            || said.state END
    FROM own JOIN pg_trigger g ON g.tgrelid = own.oid AND NOT g.tgisinternal
    CROSS JOIN LATERAL (
        SELECT pg_get_triggerdef(g.oid, true) AS whole,
               CASE g.tgenabled WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA'
                                WHEN 'A' THEN ' ALWAYS' ELSE '' END AS state) AS said
-- kind: rule
SELECT 'rule', schema, ARRAY[relname, r.rulename::text], '', NULL,
       regexp_replace(pg_get_ruledef(r.oid, true), '^CREATE RULE ("([^"]|"")+"|\S+) AS\s+', '')
       || CASE r.ev_enabled WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' ON REPLICA'
                            WHEN 'A' THEN ' ALWAYS' ELSE '' END
    FROM own JOIN pg_rewrite r ON r.ev_class = own.oid AND r.rulename <> '_RETURN'
-- kind: policy
SELECT 'policy', schema, ARRAY[relname, p.polname::text], '', said.first, said.first
    FROM own JOIN pg_policy p ON p.polrelid = own.oid
    CROSS JOIN LATERAL (SELECT concat_ws(' ',
        CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for', p.polcmd::text,
        'using ' || pg_get_expr(p.polqual, p.polrelid),
        'with check ' || pg_get_expr(p.polwithcheck, p.polrelid)) AS first) AS said
-- kind: policy roles
SELECT 'policy roles', schema, ARRAY[relname, p.polname::text], '', NULL,
       (SELECT string_agg(coalesce(r.rolname::text, 'PUBLIC'), ', ' ORDER BY r.rolname)
        FROM unnest(p.polroles) AS role LEFT JOIN pg_roles r ON r.oid = role)
    FROM own JOIN pg_policy p ON p.polrelid = own.oid
-- kind: replica identity
SELECT 'replica identity', schema, ARRAY[relname], '', NULL,
       CASE relreplident WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL'
            ELSE 'USING INDEX ' || coalesce((
                SELECT quote_ident(x.relname)
                FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                WHERE i.indrelid = own.oid AND i.indisreplident), 'that is gone') END
    FROM own WHERE relkind IN ('r', 'p') AND relreplident <> 'd'
-- kind: statistics
SELECT 'statistics', own.schema, ARRAY[relname, s.stxname::text], '', NULL,
       ltrim(substr(pg_get_statisticsobjdef(s.oid),
           length(concat('CREATE STATISTICS ', quote_ident(n.nspname), '.',
                         quote_ident(s.stxname))) + 1))
    FROM own JOIN pg_statistic_ext s ON s.stxrelid = own.oid
    JOIN pg_namespace n ON n.oid = s.stxnamespace
    WHERE NOT EXISTS (
        SELECT FROM of_extension e
        WHERE e.classid = 'pg_statistic_ext'::regclass AND e.objid = s.oid)
-- kind: table option
-- Some servers write options of their own beside a column: Debian's 15.20 has pg_attver.
SELECT 'table option', schema, ARRAY[relname, split_part(option, '=', 1)], '', NULL,
       substr(option, strpos(option, '=') + 1)
    FROM own CROSS JOIN LATERAL unnest(reloptions) AS option WHERE relkind IN ('r', 'p', 'm')
UNION ALL
SELECT 'table option', schema, ARRAY[own.relname, 'toast', split_part(option, '=', 1)], '', NULL,
       substr(option, strpos(option, '=') + 1)
    FROM own JOIN pg_class t ON t.oid = own.reltoastrelid
    CROSS JOIN LATERAL unnest(t.reloptions) AS option
UNION ALL
SELECT 'table option', schema, ARRAY[own.relname, x.relname::text, split_part(option, '=', 1)], '',
       NULL, substr(option, strpos(option, '=') + 1)
    FROM own JOIN pg_index i ON i.indrelid = own.oid JOIN pg_class x ON x.oid = i.indexrelid
    CROSS JOIN LATERAL unnest(x.reloptions) AS option
    WHERE EXISTS (
        SELECT FROM pg_constraint c
        WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x'))
UNION ALL
SELECT 'table option', schema, ARRAY[own.relname, 'cluster'], '', NULL, quote_ident(x.relname)
    FROM own JOIN pg_index i ON i.indrelid = own.oid AND i.indisclustered
    JOIN pg_class x ON x.oid = i.indexrelid
UNION ALL
SELECT 'table option', schema, ARRAY[relname, option_name], '', NULL, option_value
    FROM own JOIN pg_foreign_table f ON f.ftrelid = own.oid
    CROSS JOIN LATERAL pg_options_to_table(f.ftoptions)
UNION ALL
SELECT 'table option', own.schema, ARRAY[relname, s.stxname::text, 'statistics'], '', NULL,
       s.stxstattarget::text
    FROM own JOIN pg_statistic_ext s ON s.stxrelid = own.oid AND s.stxstattarget >= 0
UNION ALL
SELECT 'table option', schema, ARRAY[relname, a.attname::text, o.name], '', NULL, o.value
    FROM own JOIN pg_attribute a ON a.attrelid = own.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        SELECT 'statistics' AS name, a.attstattarget::text AS value WHERE a.attstattarget >= 0
        UNION ALL
        SELECT 'storage', CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL'
                                            WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END
        WHERE a.attstorage <> t.typstorage
        UNION ALL
        SELECT 'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' ELSE 'lz4' END
        WHERE a.attcompression <> ''
        UNION ALL
        SELECT split_part(option, '=', 1), substr(option, strpos(option, '=') + 1)
        FROM unnest(a.attoptions) AS option
        WHERE split_part(option, '=', 1) IN ('n_distinct', 'n_distinct_inherited')
        UNION ALL
        SELECT option_name, option_value FROM pg_options_to_table(a.attfdwoptions)) AS o
    WHERE own.relkind IN ('r', 'p', 'm', 'f')
-- kind: enum
SELECT 'enum', schema, ARRAY[typname::text], '', said.labels, said.labels
    FROM own_type t CROSS JOIN LATERAL (
        SELECT coalesce(string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder), '')
               AS labels
        FROM pg_enum e WHERE e.enumtypid = t.oid) AS said
    WHERE t.typtype = 'e'
-- kind: domain
SELECT 'domain', schema, ARRAY[t.typname::text], '',
       concat_ws(' ', said.base, said.checks),
       concat_ws(' ', said.base,
           CASE WHEN t.typcollation <> b.typcollation
                THEN 'COLLATE ' || quote_ident(l.collname) END,
           said.named_checks)
    FROM own_type t JOIN pg_type b ON b.oid = t.typbasetype
    LEFT JOIN pg_collation l ON l.oid = t.typcollation
    CROSS JOIN LATERAL (
        SELECT concat_ws(' ', format_type(t.typbasetype, t.typtypmod),
                   CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                   'DEFAULT ' || t.typdefault) AS base,
               string_agg(pg_get_constraintdef(c.oid), ' ' ORDER BY c.conname) AS checks,
               string_agg('CONSTRAINT ' || quote_ident(c.conname) || ' '
                   || pg_get_constraintdef(c.oid), ' ' ORDER BY c.conname) AS named_checks
        FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c') AS said
    WHERE t.typtype = 'd'
-- kind: composite type
SELECT 'composite type', schema, ARRAY[typname::text], '', NULL,
       (SELECT coalesce(string_agg(concat_ws(' ', quote_ident(a.attname),
                   format_type(a.atttypid, a.atttypmod),
                   CASE WHEN a.attcollation <> y.typcollation
                        THEN 'COLLATE ' || quote_ident(l.collname) END), ', '
                   ORDER BY a.attnum), '')
        FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM own_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
    WHERE t.typtype = 'c'
-- kind: range type
SELECT 'range type', schema, ARRAY[typname::text], '', NULL,
       concat_ws(' ', format_type(r.rngsubtype, NULL),
           'multirange ' || format_type(r.rngmultitypid, NULL),
           'opclass ' || quote_ident(o.opcname), 'collation ' || quote_ident(l.collname),
           CASE WHEN r.rngcanonical <> 0 THEN 'canonical ' || r.rngcanonical END,
           CASE WHEN r.rngsubdiff <> 0 THEN 'difference ' || r.rngsubdiff END)
    FROM own_type t JOIN pg_range r ON r.rngtypid = t.oid
    LEFT JOIN pg_opclass o ON o.oid = r.rngsubopc
    LEFT JOIN pg_collation l ON l.oid = r.rngcollation
    WHERE t.typtype = 'r'
-- kind: base type
SELECT 'base type', schema, ARRAY[typname::text], '', NULL,
       concat_ws(' ', 'length', typlen, 'align', typalign, 'storage', typstorage,
           'category', typcategory,
           CASE WHEN typbyval THEN 'by value' END, CASE WHEN typispreferred THEN 'preferred' END,
           'delimiter', typdelim, 'input', typinput, 'output', typoutput, 'receive', typreceive,
           'send', typsend, 'modifier in', typmodin, 'modifier out', typmodout,
           'analyze', typanalyze, 'subscript', typsubscript, 'default ' || typdefault,
           CASE WHEN typelem <> 0 THEN 'element ' || format_type(typelem, NULL) END,
           CASE WHEN typcollation <> 0 THEN 'collatable' END)
    FROM own_type WHERE typtype = 'b' AND typcategory <> 'A'
-- kind: function, procedure
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, schema, '{}'::text[], called,
       CASE WHEN p.prokind <> 'w' THEN said.first END,
       concat_ws(' ', said.first,
           CASE WHEN p.prokind = 'w' THEN 'WINDOW' END,
           CASE WHEN p.pronargdefaults > 0
                THEN 'ARGUMENTS (' || pg_get_function_arguments(p.oid) || ')' END,
           CASE p.proparallel WHEN 's' THEN 'PARALLEL SAFE' WHEN 'r' THEN 'PARALLEL RESTRICTED' END,
           CASE WHEN p.proleakproof THEN 'LEAKPROOF' END,
           CASE WHEN p.procost <> CASE WHEN l.lanname IN ('c', 'internal') THEN 1 ELSE 100 END
                THEN 'COST ' || p.procost END,
           CASE WHEN p.proretset AND p.prorows <> 1000 THEN 'ROWS ' || p.prorows END,
           CASE WHEN p.prosupport <> 0 THEN 'SUPPORT ' || p.prosupport END,
           'TRANSFORM ' || (SELECT string_agg('FOR TYPE ' || format_type(y, NULL), ', ')
                            FROM unnest(p.protrftypes) AS y),
           'LIBRARY ' || p.probin)
    FROM own_function p JOIN pg_language l ON l.oid = p.prolang
    CROSS JOIN LATERAL (SELECT
        concat_ws(' ', 'RETURNS ' || pg_get_function_result(p.oid), 'LANGUAGE ' || l.lanname,
            CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' END,
            CASE WHEN p.proisstrict THEN 'STRICT' END,
            CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' END,
            'SET ' || array_to_string(p.proconfig, ', '),
            'AS ' || regexp_replace(
                btrim(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), E' \n\r\t'),
                '\s+', ' ', 'g')) AS first) AS said
    WHERE p.prokind IN ('f', 'p', 'w')
-- kind: aggregate
-- A column of type regproc is written as a name. The columns that are numbers are written as names
-- beside them.
SELECT 'aggregate', schema, '{}'::text[], called, NULL,
       concat_ws(' ', format_type(p.prorettype, NULL),
           'state ' || format_type(a.aggtranstype, NULL),
           CASE WHEN a.aggmtranstype <> 0 THEN 'moving ' || format_type(a.aggmtranstype, NULL) END,
           CASE WHEN a.aggsortop <> 0 THEN 'sort ' || a.aggsortop::regoperator END,
           CASE p.proparallel WHEN 's' THEN 'PARALLEL SAFE' WHEN 'r' THEN 'PARALLEL RESTRICTED' END,
           (to_jsonb(a) - 'aggfnoid' - 'aggtranstype' - 'aggmtranstype' - 'aggsortop')::text)
    FROM own_function p JOIN pg_aggregate a ON a.aggfnoid = p.oid
-- kind: operator
SELECT 'operator', schema, '{}'::text[],
       concat(o.oprname, '(', concat_ws(', ', CASE WHEN o.oprleft <> 0
           THEN format_type(o.oprleft, NULL) END, format_type(o.oprright, NULL)), ')'), NULL,
       concat_ws(' ', format_type(o.oprresult, NULL), 'function ' || o.oprcode,
           CASE WHEN o.oprcom <> 0 THEN 'commutator ' || o.oprcom::regoperator END,
           CASE WHEN o.oprnegate <> 0 THEN 'negator ' || o.oprnegate::regoperator END,
           CASE WHEN o.oprrest <> 0 THEN 'restrict ' || o.oprrest END,
           CASE WHEN o.oprjoin <> 0 THEN 'join ' || o.oprjoin END,
           CASE WHEN o.oprcanhash THEN 'HASHES' END, CASE WHEN o.oprcanmerge THEN 'MERGES' END)
    FROM pg_operator o JOIN space ON space.oid = o.oprnamespace
    WHERE o.oprcode <> 0 AND NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_operator'::regclass AND e.objid = o.oid)
-- kind: operator family
SELECT 'operator family', schema, '{}'::text[], concat(f.opfname, ' using ', m.amname), NULL,
       concat_ws('; ',
           (SELECT string_agg(concat_ws(' ', 'operator', o.amopstrategy, o.amopopr::regoperator,
                       CASE WHEN o.amopsortfamily <> 0 THEN 'for order by' END), ', '
                       ORDER BY o.amopstrategy, o.amopopr::regoperator::text)
            FROM pg_amop o WHERE o.amopfamily = f.oid),
           (SELECT string_agg(concat_ws(' ', 'function', o.amprocnum,
                       format_type(o.amproclefttype, NULL), format_type(o.amprocrighttype, NULL),
                       o.amproc::regprocedure), ', '
                       ORDER BY o.amprocnum, o.amproc::regprocedure::text)
            FROM pg_amproc o WHERE o.amprocfamily = f.oid))
    FROM pg_opfamily f JOIN space ON space.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_opfamily'::regclass AND e.objid = f.oid)
-- kind: operator class
SELECT 'operator class', schema, '{}'::text[], concat(o.opcname, ' using ', m.amname), NULL,
       concat_ws(' ', format_type(o.opcintype, NULL), CASE WHEN o.opcdefault THEN 'default' END,
           'family ' || quote_ident(f.opfname),
           CASE WHEN o.opckeytype <> 0 THEN 'storage ' || format_type(o.opckeytype, NULL) END)
    FROM pg_opclass o JOIN space ON space.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod
    JOIN pg_opfamily f ON f.oid = o.opcfamily
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_opclass'::regclass AND e.objid = o.oid)
-- kind: collation
-- The locale of ICU is in collcollate in 14, in colliculocale from 15 on, in colllocale from 17 on.
SELECT 'collation', schema, ARRAY[l.collname::text], '', NULL,
       concat_ws(' ', 'provider', l.collprovider, 'locale ' || coalesce(entry ->> 'colllocale',
               entry ->> 'colliculocale', entry ->> 'collcollate'),
           CASE WHEN l.collprovider = 'c' THEN 'ctype ' || (entry ->> 'collctype') END,
           CASE WHEN NOT l.collisdeterministic THEN 'not deterministic' END,
           'rules ' || (entry ->> 'collicurules'),
           CASE WHEN l.collencoding <> -1 THEN pg_encoding_to_char(l.collencoding) END)
    FROM pg_collation l JOIN space ON space.oid = l.collnamespace
    CROSS JOIN LATERAL to_jsonb(l) AS entry
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_collation'::regclass AND e.objid = l.oid)
-- kind: conversion
SELECT 'conversion', schema, ARRAY[c.conname::text], '', NULL,
       concat_ws(' ', pg_encoding_to_char(c.conforencoding), 'to',
           pg_encoding_to_char(c.contoencoding),
           'function', c.conproc, CASE WHEN c.condefault THEN 'default' END)
    FROM pg_conversion c JOIN space ON space.oid = c.connamespace
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_conversion'::regclass AND e.objid = c.oid)
-- kind: text search configuration
SELECT 'text search configuration', schema, ARRAY[c.cfgname::text], '', NULL,
       concat('parser ', quote_ident(p.prsname), (
           SELECT string_agg(concat('; token ', m.maptokentype, ' ', m.mapdict::regdictionary), ''
                             ORDER BY m.maptokentype, m.mapseqno)
           FROM pg_ts_config_map m WHERE m.mapcfg = c.oid))
    FROM pg_ts_config c JOIN space ON space.oid = c.cfgnamespace
    JOIN pg_ts_parser p ON p.oid = c.cfgparser
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_ts_config'::regclass AND e.objid = c.oid)
-- kind: text search dictionary
SELECT 'text search dictionary', schema, ARRAY[d.dictname::text], '', NULL,
       concat_ws(' ', 'template', quote_ident(t.tmplname), d.dictinitoption)
    FROM pg_ts_dict d JOIN space ON space.oid = d.dictnamespace
    JOIN pg_ts_template t ON t.oid = d.dicttemplate
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_ts_dict'::regclass AND e.objid = d.oid)
-- kind: text search parser
SELECT 'text search parser', schema, ARRAY[p.prsname::text], '', NULL,
       concat_ws(' ', p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype)
    FROM pg_ts_parser p JOIN space ON space.oid = p.prsnamespace
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_ts_parser'::regclass AND e.objid = p.oid)
-- kind: text search template
SELECT 'text search template', schema, ARRAY[t.tmplname::text], '', NULL,
       concat_ws(' ', t.tmplinit, t.tmpllexize)
    FROM pg_ts_template t JOIN space ON space.oid = t.tmplnamespace
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_ts_template'::regclass AND e.objid = t.oid)
-- kind: extension
SELECT 'extension', '', ARRAY[extname::text], '', 'installed', 'installed'
    FROM pg_extension WHERE extname <> 'plpgsql'
-- kind: event trigger
SELECT 'event trigger', '', ARRAY[t.evtname::text], '', NULL,
       concat_ws(' ', t.evtevent, 'when ' || array_to_string(t.evttags, ', '), 'function',
           t.evtfoid::regprocedure,
           CASE t.evtenabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ON REPLICA'
                             WHEN 'A' THEN 'ALWAYS' END)
    FROM pg_event_trigger t
    WHERE NOT EXISTS (
        SELECT FROM of_extension e
        WHERE e.classid = 'pg_event_trigger'::regclass AND e.objid = t.oid)
-- kind: publication
-- Row filters and columns come with 15, generated columns with 18.
SELECT 'publication', '', ARRAY[p.pubname::text], '', NULL,
       concat_ws(' ',
           CASE WHEN p.puballtables THEN 'all tables' END,
           CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
           CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END,
           CASE WHEN p.pubviaroot THEN 'via root' END,
           CASE to_jsonb(p) ->> 'pubgencols' WHEN 's' THEN 'generated columns' END,
           (SELECT 'of ' || string_agg(concat_ws(' ', r.prrelid::regclass,
                       '(' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname)
                               FROM pg_attribute a WHERE a.attrelid = r.prrelid
                                 AND a.attnum::text
                                     = ANY(string_to_array(entry ->> 'prattrs', ' ')))
                       || ')',
                       'where ' || pg_get_expr((entry ->> 'prqual')::pg_node_tree, r.prrelid)), ', '
                       ORDER BY r.prrelid::regclass::text)
            FROM pg_publication_rel r CROSS JOIN LATERAL to_jsonb(r) AS entry
            WHERE r.prpubid = p.oid))
    FROM pg_publication p
-- kind: schemas of a publication; from 15
SELECT 'schemas of a publication', '', ARRAY[p.pubname::text], '', NULL,
       string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_publication_namespace m JOIN pg_publication p ON p.oid = m.pnpubid
    JOIN pg_namespace n ON n.oid = m.pnnspid
    GROUP BY p.pubname
-- kind: foreign data wrapper
SELECT 'foreign data wrapper', '', ARRAY[f.fdwname::text], '', NULL,
       concat_ws(' ',
           CASE WHEN f.fdwhandler <> 0 THEN 'handler ' || f.fdwhandler::regproc END,
           CASE WHEN f.fdwvalidator <> 0 THEN 'validator ' || f.fdwvalidator::regproc END)
    FROM pg_foreign_data_wrapper f
    WHERE NOT EXISTS (
        SELECT FROM of_extension e
        WHERE e.classid = 'pg_foreign_data_wrapper'::regclass AND e.objid = f.oid)
-- kind: foreign server
SELECT 'foreign server', '', ARRAY[s.srvname::text], '', NULL,
       concat_ws(' ', 'wrapper', quote_ident(f.fdwname), 'type ' || s.srvtype)
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = s.srvfdw
    WHERE NOT EXISTS (
        SELECT FROM of_extension e
        WHERE e.classid = 'pg_foreign_server'::regclass AND e.objid = s.oid)
-- kind: cast
-- Numbers below 16384 are those of the server's own objects (FirstNormalObjectId).
SELECT 'cast', '', '{}'::text[],
       format_type(c.castsource, NULL) || ' to ' || format_type(c.casttarget, NULL), NULL,
       concat_ws(' ', 'context', c.castcontext, 'method', c.castmethod,
           CASE WHEN c.castfunc <> 0 THEN 'function ' || c.castfunc::regprocedure END)
    FROM pg_cast c
    WHERE c.oid >= 16384 AND NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_cast'::regclass AND e.objid = c.oid)
-- kind: language
SELECT 'language', '', ARRAY[l.lanname::text], '', NULL,
       concat_ws(' ', CASE WHEN l.lanpltrusted THEN 'trusted' END,
           'handler ' || l.lanplcallfoid::regproc, 'inline ' || l.laninline::regproc,
           'validator ' || l.lanvalidator::regproc)
    FROM pg_language l
    WHERE l.lanispl AND l.oid >= 16384 AND NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_language'::regclass AND e.objid = l.oid)
-- kind: access method
SELECT 'access method', '', ARRAY[m.amname::text], '', NULL,
       concat_ws(' ', 'type', m.amtype, 'handler', m.amhandler)
    FROM pg_am m
    WHERE m.oid >= 16384 AND NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_am'::regclass AND e.objid = m.oid)
-- kind: transform
SELECT 'transform', '', '{}'::text[], format_type(f.trftype, NULL) || ' for ' || l.lanname, NULL,
       concat_ws(' ', CASE WHEN f.trffromsql <> 0 THEN 'from SQL ' || f.trffromsql END,
           CASE WHEN f.trftosql <> 0 THEN 'to SQL ' || f.trftosql END)
    FROM pg_transform f JOIN pg_language l ON l.oid = f.trflang
    WHERE NOT EXISTS (
        SELECT FROM of_extension e WHERE e.classid = 'pg_transform'::regclass AND e.objid = f.oid)
-- kind: owner, sequence owner, function owner, type owner, schema owner, foreign server owner
-- The owner of what the role that looks owns itself is of interest only where a catalogue names it.
SELECT CASE what WHEN 'relation' THEN 'owner' ELSE what || ' owner' END, p.schema, parts, called,
       NULL, r.rolname::text
    FROM possession p JOIN pg_roles r ON r.oid = p.owner
    WHERE cardinality(parts) < 2 AND NOT (what = 'schema' AND p.schema = 'public')
      AND (r.rolname <> current_user OR r.rolname = ANY(%(roles)s))
-- kind: grant, sequence grant, function grant, type grant, schema grant, foreign server grant
SELECT CASE what WHEN 'relation' THEN 'grant' ELSE what || ' grant' END, schema, parts,
       called || ' to ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE r.rolname::text END,
       NULL, privileges
    FROM grants g LEFT JOIN pg_roles r ON r.oid = g.grantee
    WHERE (g.grantee = 0 OR r.rolname IS NOT NULL) AND NOT EXISTS (
        SELECT FROM default_grants d
        WHERE (d.what, d.schema, d.parts, d.called, d.grantee, d.privileges)
            = (g.what, g.schema, g.parts, g.called, g.grantee, g.privileges))
UNION ALL
SELECT what || ' grant', schema, parts, called || ' to PUBLIC', NULL, 'nothing'
    FROM default_grants d
    WHERE NOT EXISTS (
        SELECT FROM grants g
        WHERE (d.what, d.schema, d.parts, d.called, d.grantee)
            = (g.what, g.schema, g.parts, g.called, g.grantee))
-- kind: default privileges
-- Whose new objects get them is not told: revisions say it of the role that runs them.
SELECT 'default privileges', coalesce(space.schema, ''), '{}'::text[],
       concat('on ', CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
                          WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas'
                          ELSE 'large objects' END,
              ' to ', CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE r.rolname::text END), NULL,
       string_agg(DISTINCT x.privilege_type
                  || CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ')
    FROM pg_default_acl d LEFT JOIN space ON space.oid = d.defaclnamespace
    CROSS JOIN LATERAL aclexplode(d.defaclacl) x
    LEFT JOIN pg_roles r ON r.oid = x.grantee
    WHERE (d.defaclnamespace = 0 OR space.oid IS NOT NULL) AND x.grantee <> d.defaclrole
      AND (x.grantee = 0 OR r.rolname IS NOT NULL) AND x.privilege_type <> 'MAINTAIN'
    GROUP BY 2, 4
-- kind: partition
SELECT 'partition', own.schema, ARRAY[own.relname], '', root.relname::text, root.relname::text
    FROM own JOIN pg_class root ON root.oid = pg_partition_root(own.oid)
    JOIN space ON space.oid = root.relnamespace AND space.schema = own.schema
    WHERE own.relispartition
-- kind: role
SELECT 'role', '', ARRAY[rolname::text], '', NULL, rolname::text
    FROM pg_roles WHERE rolname = ANY(%(roles)s)
