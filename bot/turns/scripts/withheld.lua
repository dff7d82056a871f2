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

-- What is known of each of these turns, and the newest reply of its thread; a line of `false` if there is nothing.
function verbs.standings(...)
  local found = {}
  for at, id in ipairs({...}) do
    found[at] = redis.call('HMGET', key('turn', id),
      'state', 'thread', 'body', 'message_ids', 'shown', 'more', 'previous_answer', 'end', 'forget')
    local newest = found[at][2] and redis.call('GET', key('newest', found[at][2]))
    found[at][10] = type(newest) == 'string' and newest
  end
  return found
end
