-- What is known of turns, for a context and for a screen.

-- Whether the question of a turn that was joined to another one is part of that one's exchange. A turn that has
-- ended without an exchange notes what it came `after`.
local function is_in_another(id)
  local lead = lead_of(id)
  return lead and redis.call('HEXISTS', key('turn', lead), 'after') == 0
end

-- Returns the messages, by their turns' ids, that are excluded from the context: questions that were forgotten, those
-- that wait or run and will be in the history, and those that were answered together with another one.
function verbs.withheld(...)
  local found = {}
  for _, id in ipairs({...}) do
    local turn = record(id)
    local forgotten = turn.state == 'dropped' or redis.call('HEXISTS', key('turn', id), 'forget') == 1
    if forgotten or is_open(turn) or is_in_another(id) then
      table.insert(found, id)
    end
  end
  return found
end

-- The records of these turns, as names and values, with the `newest` reply of the thread.
function verbs.standings(...)
  local found = {}
  for at, id in ipairs({...}) do
    found[at] = redis.call('HGETALL', key('turn', id))
    local thread = record(id).thread
    local newest = thread and redis.call('GET', key('newest', thread))
    if newest then
      table.insert(found[at], 'newest')
      table.insert(found[at], newest)
    end
  end
  return found
end
