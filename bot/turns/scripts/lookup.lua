-- What is known of turns: for a prompt, its context, and a screen.

-- The remembered turns of a thread, oldest first: for each its id, fields of its record, and its context.
function verbs.history(thread)
  local found = {}
  for _, id in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do
    local known = redis.call('HMGET', key('turn', id), 'asker', 'name', 'asked_at', 'text', 'question', 'answer', 'model')
    if known[6] then table.insert(found, {id, known, redis.call('LRANGE', key('context', id), 0, -1)}) end
  end
  return found
end

-- Returns the messages, by their turns' ids, that are excluded from the context: questions that were forgotten, those
-- that wait or run and will be in the history, and those that were answered together with another one. A turn that
-- has ended without an exchange notes what it came `after`.
function verbs.withheld(...)
  local found = {}
  for _, id in ipairs({...}) do
    local turn, lead = record(id), get(id, 'lead')
    local is_in_another = lead and not has(lead, 'after')
    if turn.state == 'dropped' or has(id, 'forget') or is_open(turn) or is_in_another then table.insert(found, id) end
  end
  return found
end

-- For each of these turns its record, as names and values, the newest reply of its thread, and the person's rating.
function verbs.standings(person, ...)
  local found = {}
  for at, id in ipairs({...}) do
    local newest = redis.call('GET', key('newest', get(id, 'thread') or '')) or ''
    found[at] = {redis.call('HGETALL', key('turn', id)), newest, redis.call('HGET', key('ratings', id), person) or ''}
  end
  return found
end
