-- Statements of `rowbeat app`.

-- name: commands
-- Every command of every plugin.
select to_jsonb(c) as command from rowbeat.plugin_command c order by c.plugin, c.name

-- name: run
-- $1 plugin · $2 command · $3 arguments: the lines to print.
select l as line from rowbeat.run_command($1, $2, $3) l

-- name: enqueue
-- $1 definition · $2 payload: the task.
select rowbeat.enqueue($1, $2) as id
