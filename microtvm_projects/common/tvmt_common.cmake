# What several tvmtiny models of one build share is compiled once.

# Add to TARGET those of the given files, relative to DIRECTORY, that no model has brought yet. Their headers are those
# of the model that brings them.
function(tvmt_common_sources target directory)
  foreach(source IN LISTS ARGN)
    file(SHA256 ${directory}/${source} hash)
    get_property(known GLOBAL PROPERTY tvmt_${source})
    if(NOT known)
      set_property(GLOBAL PROPERTY tvmt_${source} ${hash})
      target_sources(${target} PRIVATE ${directory}/${source})
      set_source_files_properties(${directory}/${source} TARGET_DIRECTORY ${target}
                                  PROPERTIES INCLUDE_DIRECTORIES ${directory}/include)
    elseif(NOT known STREQUAL hash)
      message(FATAL_ERROR "${directory}/${source} differs from that of another model in this build. "
                          "Compile all models with one version of tvmtiny.")
    endif()
  endforeach()
endfunction()
